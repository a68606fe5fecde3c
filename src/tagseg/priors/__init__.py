"""What is an object at all?"""
