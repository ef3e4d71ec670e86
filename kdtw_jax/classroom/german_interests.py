"""The words that interests are made of in German: first parts of compounds, and nouns as one/several."""

from __future__ import annotations

from collections.abc import Mapping

# By category: what kinds there are, and of what; a noun without "/" is the same in the plural.
GERMAN_KINDS: Mapping[str, tuple[str, str]] = {
    "music": (
        "Jazz Rock Folk Pop Klavier Gitarren Geigen Trommel Chor Opern Straßen Film Tanz Blues Flöten Harfen Cello",
        (
            "band/bands lied/lieder konzert/konzerte festival/festivals album/alben show/shows wettbewerb/wettbewerbe "
            "sänger star/stars club/clubs"
        ),
    ),
    "games": (
        "Brett Puzzle Renn Bau Farm Burgen Insel Labyrinth Schach Piraten Roboter Höhlen Wort Gedächtnis Dorf",
        "spiel/spiele welt/welten level abenteuer turnier/turniere club/clubs meister rätsel held/helden",
    ),
    "sport": (
        "Fußball Basketball Tennis Hockey Handball Schwimm Rad Lauf Ski Kletter Judo Ruder Surf Golf",
        "team/teams wettkampf/wettkämpfe pokal/pokale star/stars trainer liga/ligen held/helden verein/vereine",
    ),
    "animals": (
        "Wald Dschungel Wüsten Fluss Berg Polar Meeres Garten Nacht Baby Riesen Zwerg Insel Höhlen",
        (
            "fuchs/füchse eule/eulen pferd/pferde schildkröte/schildkröten delfin/delfine pinguin/pinguine kaninchen "
            "tiger bär/bären papagei/papageien eidechse/eidechsen igel otter spinne/spinnen frosch/frösche "
            "katze/katzen hund/hunde"
        ),
    ),
    "cooking": (
        "Schokoladen Zitronen Apfel Kirsch Käse Honig Ingwer Kürbis Beeren Vanille Knoblauch Tomaten Reis Kokos Mango",
        (
            "kuchen torte/torten suppe/suppen keks/kekse pfannkuchen muffin/muffins soße/soßen rezept/rezepte "
            "waffel/waffeln salat/salate"
        ),
    ),
    "space": (
        "Mond Planeten Kometen Sternen Galaxien Asteroiden Sonnen Alien Meteor Weltraum Mars Jupiter Saturn Venus",
        (
            "rakete/raketen station/stationen fahrzeug/fahrzeuge teleskop/teleskope mission/missionen forscher "
            "pilot/piloten fähre/fähren sonde/sonden roboter"
        ),
    ),
    "history": (
        "Römer Wikinger Ritter Pharaonen Burg Steinzeit Bronze Piraten Samurai Wüsten Berg Insel Hafen Tempel",
        (
            "schiff/schiffe könig/könige königin/königinnen sage/sagen schatz/schätze dorf/dörfer schwert/schwerter "
            "turm/türme maler baumeister"
        ),
    ),
    "stories": (
        "Drachen Zauber Feen Geister Detektiv Roboter Nixen Riesen Monster Vampir Einhorn Ninja Märchen Hexen Winter",
        (
            "schule/schulen geschichte/geschichten film/filme buch/bücher insel/inseln wald/wälder burg/burgen "
            "familie/familien freund/freunde stadt/städte comic/comics serie/serien"
        ),
    ),
    "making": (
        "Papier Ton Holz Woll Glas Perlen Origami Stoff Papp Knet Draht Leder Modell Regenbogen Filz",
        (
            "turm/türme tier/tiere blume/blumen brücke/brücken boot/boote maske/masken puppe/puppen lampe/lampen "
            "werkstatt/werkstätten"
        ),
    ),
    "nature": (
        (
            "Rosen Eichen Kiefern Kakteen Korallen Pilz Vulkan Gletscher Kristall Wasserfall Regenbogen Sturm Wolken "
            "Küsten Höhlen"
        ),
        "garten/gärten wanderung/wanderungen foto/fotos pfad/pfade park/parks bild/bilder museum/museen karte/karten",
    ),
    "machines": (
        "Dampf Elektro Renn Feuerwehr Rettungs Berg Stadt Nacht Polizei Weltraum Spielzeug Solar Diesel Riesen",
        (
            "zug/züge bahn/bahnen lastwagen rad/räder traktor/traktoren kran/kräne drohne/drohnen boot/boote "
            "flugzeug/flugzeuge hubschrauber roboter auto/autos"
        ),
    ),
    "school": (
        "Mathe Rechtschreib Lese Gedicht Theater Schach Wetter Garten Insekten Planeten Sprachen Zauber Chor Kunst",
        "club/clubs messe/messen projekt/projekte woche/wochen tag/tage poster wettbewerb/wettbewerbe preis/preise",
    ),
}
