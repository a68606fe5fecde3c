"""What lies in a folder: its layout, photos and masks told apart, splits."""
