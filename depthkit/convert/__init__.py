"""Other people's datasets as samples: a module per dataset or family, each with a function ``NAME(root, ...)`` named after it.

``catalogue`` lists them with their facts, ``records`` holds what they share.
"""
