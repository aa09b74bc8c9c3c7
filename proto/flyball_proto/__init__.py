"""The wire contract: messages in `flyball_proto.v1`, their translation in `flyball_proto.codec`.

Protobuf stops here: everything above works on the types of `flyball_core`.
"""
