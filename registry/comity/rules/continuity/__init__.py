"""What replaces a service on the day it is cut off.

plan           the plan: services in use, whom each must survive, and its fallbacks in order
drill_report   what happened when a service was cut off on purpose
"""
