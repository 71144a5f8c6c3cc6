"""Power cuts under whole processes: their calls are recorded, and disks are made that lost their power in between.

recording   a process with core/record_disk.c preloaded, and the events that it left
disk        a folder that replays events, and what may be left of it after a cut
stores      what is run on it, and what has to come back
"""
