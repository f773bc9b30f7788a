from storyforge.principles.checks import Corpus, corpus
