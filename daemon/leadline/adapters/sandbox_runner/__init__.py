"""Tenants' code on this machine, each run in a sandbox of its own (`ports.runner.Runner`).

A run is a folder and a process that supervises it. The supervisor is no part of the daemon: it outlives it, holds the
run to its limits, writes down what it prints and how it ended, and ends with it. The daemon only reads the folder, also
that of a run which an earlier daemon has started. The supervisor holds one end of a pipe in that folder for as long as
it lives; so the other end tells the daemon of news, and by its hanging up, of the supervisor's death.

What a supervisor starts is one process namespace. Its first process is known by number and time of birth, and written
down before the first line of a tenant's code is loaded. Killing that one is killing all, however often they have forked
and whatever they have detached from: the kernel does it, and says when it is done. Were the supervisor killed instead,
the sandbox dies with it, and whoever finds the folder sees to that.

    runner        the daemon's side
    run_folder    what is kept of a run
    processes     a process by number and birth
    supervisor    the program beside each run
    launch        how a run is begun, and ended with all that it has started
    entrance      who a process becomes before its program begins, and what it may take
    cgroups       a bound on the memory of all its processes together
    bubblewrap    the walls of a sandbox
    seccomp       the system calls that are refused in it
    network       what is reached from inside
    questions     what the code asks the daemon, and what it is answered
    output        from what is printed to lines that can be kept
    production    the file that a run makes
    trial         whether code can be run here, by running some
    bootstrap     the program inside, which loads the code
    modules       what the code finds there beside the standard library
"""
