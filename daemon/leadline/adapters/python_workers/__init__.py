"""Python modules in processes of their own.

A module is code that the operator has installed: it is trusted, but it may hang, crash, leak and print. So nothing of
it is ever imported into the daemon; even what it declares is asked of a process (`discovery`). Towards the rest of the
daemon a module is a provider like any other, only that its requests go to `python://NAME` and are answered by a worker
(`pool`), with a status as HTTP would have it: limits, pauses, permits, retries and the books are those of providers.

    discovery    which modules are installed, and what they say of themselves
    pool         who answers the next lead: the processes of each module
    process      one worker process, from its start until it is proven gone
    worker       the program in that process
    keeper       the process between the two, which lets nothing outlive either
    wire         what the two say to each other
"""
