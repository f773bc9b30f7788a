"""What several stages share, without torch: errors, params, records, files, choice by hash, assets."""
