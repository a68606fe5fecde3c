"""The parts of the reliability campaign, tools/campaign.py."""
