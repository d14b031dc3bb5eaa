"""Films: frames one after the other, their motion, maps that do not flicker, and coloured films of them."""
