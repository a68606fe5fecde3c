"""COCO's instances: a JSON file of images, categories and the objects in them."""
