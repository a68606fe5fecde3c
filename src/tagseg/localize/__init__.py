"""Which class is where?"""
