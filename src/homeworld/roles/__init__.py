"""The composition root's parts: what each process of an installation is made of."""
