"""How a pass is run: attention in our hands, blocks one by one, recording and editing at sites."""
