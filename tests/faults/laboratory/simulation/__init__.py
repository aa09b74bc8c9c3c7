"""A fleet of production parts in virtual time, and everything around them that can fail.

Owners, pushers, receivers, node agents, spools and shippers are the product's own. Time, processes, the network, the
log and the disks are made here, and break as a schedule says. One seed is one run, to the bit, on any machine.
"""
