"""The `flyball` command: everything an operator types. Thin: it parses, calls and prints."""
