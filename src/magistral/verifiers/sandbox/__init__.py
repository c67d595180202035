"""Runs code that nobody trusts: `Box.run` says how a program ended and what it wrote; the kernel holds the limits.

limits.py   what a program may use, and the record of a run
cgroup.py   memory, processes and CPU time of a whole family of processes, where the host has control groups
seccomp.py  the system calls that are refused
host.py     which of these this host has: the tier of isolation
box.py      one run
start.py    what is asked of launch.py in each tier
launch.py   the small process that starts programs
watch.py    until a program has ended, or its time has
doctor.py   probes that try to break out
"""
