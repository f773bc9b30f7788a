"""StoryForge turns a language model into a storyteller, from raw stories to a finished report.

A folder is a layer; a file imports from its own layer or one further up this list:

    launch, params, records, assets   the ground: no torch, no knowledge of stories
    text/                             pure functions on text: clean, filter, deduplicate, prompt, chat
    model/                            the only folder that imports torch: load, encode, train, write
    stages/                           one file a DVC stage: collect, preprocess, train, evaluate, report
"""
