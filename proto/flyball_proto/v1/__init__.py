"""Version 1 of the contract (protobuf package `flyball.v1`): `*.proto` and the generated code."""
