"""What a control plane of thousands of branches costs: the real store, executor, gateway and API over servers
that are only simulated.
"""
