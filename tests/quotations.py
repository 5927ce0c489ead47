"""Whether a quotation stands in a paper's text."""
import re


def plain(text):
    """Text without mark-up: formulas as characters, single spaces, no hyphens at line ends."""
    text = re.sub(r"<sup>.*?</sup>|\$|\*", "", text).replace(r"\pm", "±").replace(r"\sigma", "σ").replace(r"\times", "×")
    return re.sub(r"\s+", " ", text).replace("( ", "(").replace(" )", ")").replace(" .", ".")


def stands_in(quote, text):
    """Whether the parts of a quotation, between "...", stand in the text in their order."""
    found = 0
    for part in plain(quote).split("..."):
        found = text.find(part.strip(), found)
        if found < 0:
            return False
        found += len(part.strip())
    return True
