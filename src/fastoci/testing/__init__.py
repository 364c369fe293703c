"""What other pullers' tests can use too: a loopback registry, images made to order, and listings of trees."""
