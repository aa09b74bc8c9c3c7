"""The receiver's contract, walked rule by rule: a controller that tries out whatever receiver attaches to it.

The rules themselves stand in docs/receiver.md, whose numbers the results carry. It knows a receiver
only by what comes over the wire, in any language; it governs nothing, and belongs on no production engine.
"""
