"""What happens around the network for one pair: search where one pass is lost, polish where the images say more."""
