"""Where is anything that stands out, whatever its class?"""
