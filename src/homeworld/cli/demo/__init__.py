"""``homeworld demo``: real tables move to shards while an application writes to them.

Everything here is a client: it starts ``homeworld up`` as a child process, speaks the REST API and MySQL like
anybody else, and believes nothing that its own ledger does not confirm.
"""
