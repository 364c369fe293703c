"""What other pullers' tests can use too: a loopback registry, a fake containerd, images to order, listings of trees."""
