"""StoryForge turns a language model into a storyteller, from raw stories to a finished report.

A folder is a stage, or what several stages share. A file imports from its own folder or from one to its left:

    core  ←  collect | report | judging                                         no torch
    core  ←  measures  ←  preprocess | principles                               no torch
    core  ←  engine  ←  model  ←  train | sampling  ←  evaluate | export        torch; evaluate measures too
    all of these but collect, preprocess, report  ←  revise | align | judge     torch
    all  ←  commands  ←  cli, demo
"""

import sys

if sys.platform == "win32":  # before anything imports fcntl or resource, which are missing there
    sys.exit("error: StoryForge runs on Linux and macOS; on Windows, run it in WSL")
