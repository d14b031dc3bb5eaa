"""Other people's datasets as samples: a module per layout, each with ``frames`` (a sequence) and ``samples`` (an iterator)."""
