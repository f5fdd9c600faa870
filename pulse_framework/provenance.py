"""What pictures say of how they were made: generator, seed and settings, in the text of PNG and in XMP.

XMP's ``DigitalSourceType`` has the words of the IPTC (Guidance on using Digital Source Type, 2023).
"""

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from xml.sax.saxutils import escape

__all__ = ["COMPOSITE", "INVENTED", "SYNTHETIC", "XMP", "marked", "png_text", "said"]

_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SYNTHETIC = f"{_TERMS}trainedAlgorithmicMedia"
"""The IPTC's word for pictures that a trained model has made."""
COMPOSITE = f"{_TERMS}compositeWithTrainedAlgorithmicMedia"
"""The IPTC's word for pictures with parts that a trained model has made."""
XMP = "XML:com.adobe.xmp"
"""Key of XMP in the text of PNG."""
INVENTED = (
    "PULSE makes faces of people who do not exist and cannot identify anyone: a generator invented this to fit a measurement"
)
"""Warning of the model cards, in every picture."""

_DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:pulse="urn:pulse-latent:1">'
    "<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType><pulse:settings>{settings}</pulse:settings>"
    "</rdf:Description>"
)
_OWN = re.compile(rb'<rdf:Description\b[^>]*xmlns:pulse="urn:pulse-latent:1"[^>]*>.*?</rdf:Description>', re.DOTALL)
_SOURCE = re.compile(
    rb"""\s[\w.-]+:DigitalSourceType\s*=\s*("[^"]*"|'[^']*')|<([\w.-]+:DigitalSourceType)\b[^>]*>.*?</\2\s*>""", re.DOTALL
)
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{description}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def said(generator: str, seed: int | str | None = None, **settings: object) -> dict[str, str]:
    """What is said of a picture, by the keys of PNG text.

    Args:
        generator: Name of its configuration.
        seed: Of the run; None where it is not known.
        settings: Whatever else the picture depends on. Of paths the last parts are told, not the folders.
    """
    made = {"Generator": generator, **({} if seed is None else {"Seed": str(seed)})}
    made |= {key.capitalize(): _told(value) for key, value in settings.items()}
    return {**made, "Software": f"pulse-latent {version('pulse-latent')}", "Description": INVENTED}


def png_text(text: Mapping[str, str], source: str = SYNTHETIC) -> dict[str, str]:
    """The same with XMP, for ``png_bytes`` and ``write_png``."""
    return {**text, XMP: marked(b"", text, source).decode()}


def marked(xmp: bytes, text: Mapping[str, str], source: str = SYNTHETIC) -> bytes:
    """An XMP packet that says what is synthetic, beside what the picture's own says of other things.

    A packet in other words than UTF-8 with the prefix ``rdf`` is replaced.
    """
    xmp = _SOURCE.sub(b"", _OWN.sub(b"", xmp))
    description = _DESCRIPTION.format(source=source, settings=escape(json.dumps(dict(text)))).encode()
    head, end, tail = xmp.rpartition(b"</rdf:RDF>")
    return head + description + end + tail if end else _PACKET.format(description=description.decode()).encode()


def _told(value: object) -> str:
    """A setting in words: what has parts, as JSON."""
    return json.dumps(_without_folders(value), sort_keys=True) if isinstance(value, Mapping) else str(value)


def _without_folders(value: object) -> object:
    """The same, with the last part of every path in place of it."""
    if isinstance(value, Mapping):
        return {str(key): _without_folders(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(part) for part in value]
    return re.split(r"[/\\]", value)[-1] if isinstance(value, str) else value
