"""The command line: `shmkv`, also `python -m shmkv`.

main.py knows the commands by name and turns errors into exit statuses; commands/ has one module
for each command, imported only when it is the one; render.py turns results into text and does
nothing else.
"""
