"""``depthkit finetune``: look at the data, choose, train from the network's own prediction, keep the better of the two."""
