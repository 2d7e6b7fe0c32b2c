"""What a picture file says about itself: parameters text, receipt, and the files that hold them."""
