"""What replaces a service on the day it is cut off.

plan           the plan: services in use, whom each must survive, and its fallbacks in order
facts          what is known of a plan, as it was gathered
links          each thing that can be wrong with a plan, and how bad that is
check          what of a plan holds: facts in, links out
drill_report   what happened when a service was cut off on purpose
"""
