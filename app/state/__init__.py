"""What requests leave behind for those that follow."""
