"""Runs code that nobody trusts: `Box.run` says how a program ended and what it wrote; the kernel holds the limits.

limits.py   what a program may use, and the record of a run
cgroup.py   memory, processes and CPU time of a whole family of processes, where the host has control groups
seccomp.py  the system calls that are refused
host.py     which of these this host has: the tier of isolation
box.py      one run
launch.py   what stands between us and the program where there is no bubblewrap
doctor.py   probes that try to break out
"""
