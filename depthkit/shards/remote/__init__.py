"""Shards on a server: bytes by range with patience in ``fetch``, copies shared by the processes of a machine in ``cache``."""
