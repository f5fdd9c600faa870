"""Provenance: pictures that a generator made say so, in words that programs understand."""

import json
from xml.etree import ElementTree

import pytest

from pulse_framework.provenance import COMPOSITE, SYNTHETIC, XMP, marked, png_text, said

TERM = ".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
SETTINGS = ".//{urn:pulse-latent:1}settings"


def read(packet):
    """Term and settings of an XMP packet, by an XML parser."""
    root = ElementTree.fromstring(packet[packet.index("?>") + 2 : packet.rindex("<?")] if "<?xpacket" in packet else packet)
    return [node.text for node in root.iterfind(TERM)], [json.loads(node.text) for node in root.iterfind(SETTINGS)]


@pytest.mark.parametrize("generator", ["faces", "<a> & 'b' \"c\"", "größe"])
def test_the_packet_is_xml_and_holds_what_was_said(generator):
    text = said(generator, 0, restart=3)
    assert (text["Generator"], text["Seed"], text["Restart"]) == (generator, "0", "3")
    assert read(png_text(text)[XMP]) == ([SYNTHETIC], [text])
    assert read(png_text(text, COMPOSITE)[XMP]) == ([COMPOSITE], [text])


def test_what_another_packet_says_stays():
    own = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:source>own</dc:source></rdf:Description>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    packet = marked(own, said("faces"), COMPOSITE).decode()
    assert "<dc:source>own</dc:source>" in packet
    assert read(packet) == ([COMPOSITE], [said("faces")])


@pytest.mark.parametrize(
    "own",
    [
        b'<rdf:Description xmlns:d="urn:d"><d:DigitalSourceType>digitalCapture</d:DigitalSourceType></rdf:Description>',
        b"<rdf:Description rdf:about='' xmlns:d='urn:d' d:DigitalSourceType='digitalCapture' d:kept='1'/>",
        marked(b"", said("older", 7)).partition(b'syntax-ns#">')[2].partition(b"</rdf:RDF>")[0],
    ],
    ids=["element", "attribute", "ours"],
)
def test_one_word_on_the_source_replaces_another(own):
    """A property twice is no XMP."""
    head = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    packet = marked(head + own + b"</rdf:RDF>", said("faces"), COMPOSITE).decode()
    assert read(packet) == ([COMPOSITE], [said("faces")])
    assert packet.count("DigitalSourceType>") == 2
    assert "digitalCapture" not in packet
    assert "older" not in packet
    assert ("kept" in packet) == (b"kept" in own)


def test_settings_are_told_without_the_folders_of_this_machine():
    settings = {"generator": {"path": "/home/me/net.pt", "psi": 0.7}, "search": {"steps": 3, "files": ["C:\\data\\a.npy", "b"]}}
    text = said("faces", settings=settings)["Settings"]
    assert json.loads(text) == {"generator": {"path": "net.pt", "psi": 0.7}, "search": {"steps": 3, "files": ["a.npy", "b"]}}


def test_an_unknown_seed_is_not_claimed():
    assert "Seed" not in said("faces")
