"""The controller: a pure machine (`machine`) and the edges that feed and obey it.

`machine.step` decides; `owner` reads the log and publishes what was decided; `pusher`
brings it to engines and gateways; `replay` runs the machine over a recorded log and has
no way to reach an engine.
"""
