"""Fault injection: kills, failing disks, lost power, rot, odd surroundings; long by `python -m tests.faults`.

Nothing is simulated that can be done for real, and every injection is asserted to have fired.
"""
