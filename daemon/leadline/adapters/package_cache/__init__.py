"""The packages that tenants' code asks for, installed once and kept for every run that asks for the same
(`features.batch.packages.Packages`).

    cache         what is there, what is in use, what has to go
    installation  one installation, by a run in the sandbox
    installer     the program of that run
    tools         what an interpreter is, and which pip installs for it
"""
