"""What the demo's house is made of: rooms, floors, devices, and what people say, write on lists and set timers for.

All invented here. The published grammar leaves these lists open: an installation fills in its own rooms and devices.
A device belongs to a domain (light, cover, ...), and the grammar lets only some domains be opened, dimmed or locked.
Few names are words of the grammar itself, for a command that has two readings is dropped.
Places stand with their preposition ("in der Küche"), devices with their article ("the safe"): `wording.py` needs both
to put right what stands around them; the name itself is what follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Names:
    """The open lists of one language: `devices` by domain, `phrases` by the grammar's free-text list."""

    areas: tuple[str, ...]
    floors: tuple[str, ...]
    devices: Mapping[str, tuple[str, ...]]
    phrases: Mapping[str, tuple[str, ...]]
    # name -> the name with its article or, for places, its preposition; where the language needs that
    inflected: Mapping[str, str] = field(default_factory=dict)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


def _table(**lists: str) -> dict[str, tuple[str, ...]]:
    return {key: _items(text) for key, text in lists.items()}


_ARTICLES = re.compile(r"(?:(?:in|on|at|im|am|an|auf|beim|bei) )?(?:(?:the|der|die|das|dem) )?")


def _bare(names: Names) -> Names:
    """Take "im Bad" and "the safe" apart: the names are "Bad" and "safe", `inflected` keeps the whole."""
    inflected: dict[str, str] = {}

    def strip(phrases: tuple[str, ...]) -> tuple[str, ...]:
        bare = tuple(_ARTICLES.sub("", phrase, count=1) for phrase in phrases)
        inflected.update(zip(bare, phrases, strict=True))
        return bare

    return replace(
        names,
        areas=strip(names.areas),
        floors=strip(names.floors),
        devices={domain: strip(group) for domain, group in names.devices.items()},
        phrases={**names.phrases, **{key: strip(names.phrases[key]) for key in ("zone", "timer_name")}},
        inflected=inflected,
    )


_ENGLISH = Names(
    areas=_items(
        "in the kitchen, in the bedroom, in the bathroom, in the living room, in the dining room, in the hallway,"
        "in the office, in the garage, in the attic, in the nursery, in the laundry room, in the guest room,"
        "in the playroom, in the study, in the library, in the pantry, in the conservatory, in the sunroom,"
        "on the porch, on the patio, on the balcony, on the terrace, in the garden, in the greenhouse, in the workshop,"
        "in the gym, in the sauna, in the cellar, in the den, in the foyer, in the mudroom, in the utility room,"
        "in the music room, in the studio, in the carport, in the loft, in the storage room, in the boiler room,"
        "in the dressing room, in the stairwell, in the wine bar, in the hobby room"
    ),
    floors=_items(
        "on the ground floor, on the first floor, on the second floor, on the third floor, on the top floor,"
        "in the basement, on the lower level, on the upper level"
    ),
    devices=_table(
        light="the chandelier, the lantern, the wall sconce, the christmas tree, the aquarium, the disco ball,"
        "the pendant, the terrarium",
        switch="the coffee maker, the kettle, the space heater, the fountain, the humidifier, the pool pump,"
        "the dishwasher",
        fan="the ceiling fan, the tower fan, the extractor, the ventilator, the desk fan",
        media_player="the television, the soundbar, the record player, the stereo, the smart speaker, the radio,"
        "the jukebox",
        input_boolean="vacation mode, guest mode, party mode, away mode, night mode",
        climate="the thermostat, the heat pump, the air conditioner, the radiator, the underfloor heating",
        cover="the skylight, the roller blind, the canopy, the roman blind, the pergola roof, the driveway barrier",
        valve="the water main, the sprinkler valve, the gas valve, the irrigation line, the rain tap",
        lock="the front door, the patio door, the safe, the medicine cabinet, the tool shed",
        binary_sensor="the mailbox, the cat flap, the parking space, the fridge, the smoke detector",
        sensor="the air quality, the power meter, the rain gauge, the water tank, the humidity",
        person="anna, ben, carla, david, emma, felix, grace, hugo",
        weather="oslo, lisbon, vienna, toronto, kyoto, dublin",
        todo="the chores, the packing, the wish, the reading, the bucket, the holiday",
        scene="movie night, dinner party, romantic evening, bright morning, reading hour, sunset",
        script="the bedtime routine, the morning routine, the leaving routine, the holiday routine, the fire drill",
        vacuum="the robot vacuum, the dust robot, the floor robot, the carpet robot",
        lawn_mower="the lawn robot, the grass robot, the garden robot, the meadow robot",
        button="the doorbell, the reset button, the dinner bell, the garage remote",
    ),
    phrases=_table(
        message="dinner is ready, breakfast is on the table, we leave in ten minutes, the guests are here,"
        "please come downstairs, the taxi is waiting, somebody is at the gate, it is time for bed,"
        "the cake is done, lunch is served, the football match starts now, your bath is ready,"
        "please keep quiet, i am home, the parcel has arrived, school starts in half an hour,"
        "the dog needs a walk, the washing is done, grandma is on the phone, everybody put on shoes",
        search_query="abbey road, bohemian rhapsody, the four seasons, dancing queen, yesterday, moonlight sonata,"
        "miles davis, nina simone, daft punk, ella fitzgerald, the beatles, fleetwood mac, johnny cash, kraftwerk,"
        "rumours, graceland, blue train, purple rain, billie jean, hotel california, smooth jazz, whale sounds,"
        "summer hits, workout mix, sleepy piano, the evening news, casablanca, star wars, sherlock, planet earth",
        zone="home, at work, at school, at the university, at the supermarket, at the airport, at the swimming pool,"
        "at the cinema, at the hospital, at the church, at the football club, at the train station, at the museum,"
        "at the town hall, in the city park, at the bakery, at the theater",
        timer_name="pizza, pasta, egg, tea, bread, cake, rice, laundry, workout, nap, homework, yoga, cookie, soup,"
        "chicken, coffee, meditation, potato, lasagna, piano, screen time, bath, sauce, salmon, roast,"
        "pancake, lunch break, washing, exam, parking",
        timer_command="turn off the lights, open the blinds, close the curtains, lock the door, start the dishwasher,"
        "turn off the oven, turn on the fan, pause the music, stop the music, mute the speakers, water the plants,"
        "feed the fish, turn down the heating, turn up the heating, run the vacuum, dim the lights,"
        "play some jazz, turn off the iron, open the windows, call a taxi, wake me up, turn on the sprinkler",
        shopping_list_item="milk, eggs, bread, butter, apples, bananas, tomatoes, olive oil, rice, pasta, cheese, coffee,"
        "tea bags, sugar, flour, chicken, salmon, onions, garlic, potatoes, carrots, lettuce, yoghurt, cereal,"
        "orange juice, sparkling water, toilet paper, dish soap, shampoo, light bulbs, batteries, cat food",
        todo_list_item="buy stamps, call mum, pay the rent, mow the lawn, book a flight, clean the oven, fix the bike,"
        "water the plants, renew the passport, wash the car, walk the dog, write to grandpa, order firewood,"
        "iron the shirts, take out the bins, wrap the presents, cancel the newspaper, sort the photos,"
        "repair the fence, pick up the parcel, charge the camera, sunscreen, a tent, hiking boots, a good novel",
    ),
)

_GERMAN = Names(
    areas=_items(
        "in der Küche, im Schlafzimmer, im Bad, im Wohnzimmer, im Esszimmer, im Flur, im Büro, in der Galerie,"
        "auf dem Dachboden, im Kinderzimmer, in der Waschküche, im Gästezimmer, im Spielzimmer, im Arbeitszimmer,"
        "in der Bibliothek, in der Speisekammer, im Wintergarten, auf der Veranda, auf dem Balkon, auf der Terrasse,"
        "im Garten, im Gewächshaus, in der Werkstatt, im Fitnessraum, in der Sauna, im Weinkeller, in der Diele,"
        "im Foyer, im Abstellraum, im Hauswirtschaftsraum, im Musikzimmer, im Atelier, im Carport, im Heizungskeller,"
        "im Ankleidezimmer, im Treppenhaus, im Windfang, in der Bar, im Hobbyraum, im Lesezimmer, in der Loggia"
    ),
    floors=_items("im Erdgeschoss, im Obergeschoss, im Dachgeschoss, im Untergeschoss, im Souterrain, im Hochparterre"),
    devices=_table(
        light="der Kronleuchter, die Laterne, die Stehlampe, der Weihnachtsbaum, das Aquarium, die Discokugel,"
        "die Leselampe, das Nachtlicht",
        switch="die Kaffeemaschine, der Wasserkocher, der Heizstrahler, der Springbrunnen, der Luftbefeuchter,"
        "die Poolpumpe, die Spülmaschine",
        fan="der Deckenventilator, der Turmventilator, die Dunstabzugshaube, der Tischventilator",
        media_player="die Soundbar, der Plattenspieler, die Stereoanlage, der Lautsprecher, die Jukebox, der Beamer",
        input_boolean="der Urlaubsmodus, der Gästemodus, der Partymodus, der Nachtmodus, der Ruhemodus",
        climate="die Wärmepumpe, der Heizkörper, die Fußbodenheizung, der Klimasplitter, der Kachelofen",
        cover="das Dachfenster, der Sonnenschutz, das Verdeck, das Raffrollo, das Pergoladach, das Oberlicht",
        valve="der Haupthahn, das Sprengerventil, das Gasventil, der Gartenhahn, das Heizventil",
        lock="die Haustür, die Terrassentür, der Tresor, der Arzneischrank, der Schuppen",
        binary_sensor="der Briefkasten, die Katzenklappe, der Parkplatz, der Kühlschrank, der Rauchmelder",
        sensor="die Luftqualität, der Stromzähler, der Regenmesser, der Wassertank, die Luftfeuchtigkeit",
        person="Anna, Ben, Carla, David, Emma, Felix, Greta, Hugo",
        weather="Oslo, Lissabon, Wien, Toronto, Kyoto, Bremen",
        todo="die Hausarbeit, der Wunsch, die Party, die Ferien, das Projekt, die Reise",
        scene="der Filmabend, die Abendstimmung, das Festessen, der Sonnenaufgang, die Lesestunde",
        script="die Morgenroutine, die Abendroutine, die Urlaubsroutine, der Feueralarm, der Abschied",
        vacuum="der Staubroboter, der Bodenroboter, der Teppichroboter, der Putzroboter",
        lawn_mower="der Wiesenroboter, der Grasroboter, der Mähroboter, der Gartenroboter",
        button="die Türklingel, die Neustarttaste, die Tischglocke, die Garagenfernbedienung",
    ),
    phrases=_table(
        message="das Essen ist fertig, das Frühstück steht auf dem Tisch, wir fahren in zehn Minuten, die Gäste sind da,"
        "das Taxi wartet, jemand ist am Gartenzaun, es ist Schlafenszeit, der Kuchen ist fertig, das Spiel beginnt,"
        "die Wanne ist voll, ich bin zu Hause, das Paket ist angekommen, die Schule beginnt in einer halben Stunde,"
        "der Hund muss raus, die Wäsche ist fertig, Oma ist am Telefon, alle Mann Schuhe anziehen",
        search_query="Abbey Road, Bohemian Rhapsody, Die vier Jahreszeiten, Dancing Queen, Mondscheinsonate,"
        "Miles Davis, Nina Simone, Daft Punk, Ella Fitzgerald, Herbert Grönemeyer, Die Ärzte, Nena, Kraftwerk,"
        "Rumours, Graceland, Purple Rain, Billie Jean, Hotel California, Jazzklassiker, Walgesänge, Sommerhits,"
        "Morgenlauf, Klaviermusik, Casablanca, Tatort, Raumpatrouille, Der kleine Prinz, Die Zauberflöte",
        zone="bei der Arbeit, in der Schule, an der Universität, im Supermarkt, am Flughafen, im Schwimmbad, im Kino,"
        "im Krankenhaus, in der Kirche, im Sportverein, am Bahnhof, beim Zahnarzt, in der Bäckerei, im Stadtpark,"
        "im Theater, im Museum, im Rathaus",
        timer_name="die Pizza, die Nudeln, die Eier, der Tee, das Brot, der Kuchen, der Reis, die Wäsche, das Training,"
        "der Mittagsschlaf, die Hausaufgaben, das Yoga, die Plätzchen, die Suppe, das Hähnchen, der Kaffee,"
        "die Meditation, die Kartoffeln, die Lasagne, die Klavierstunde, die Bildschirmzeit, die Soße, der Lachs,"
        "der Braten, die Pfannkuchen, die Lernpause, die Prüfung, die Parkuhr, das Gulasch, die Knödel",
        timer_command="schalte das Licht aus, öffne die Vorhänge, schließe das Fenster, verriegle die Tür,"
        "starte die Waschmaschine, schalte den Ofen aus, schalte die Musik aus, gieße die Blumen, füttere die Fische,"
        "dreh die Heizung runter, dreh die Heizung auf, spiele etwas Jazz, schalte das Bügeleisen aus, rufe ein Taxi,"
        "wecke mich, schalte den Rasensprenger an, dimme das Licht, starte den Trockner",
        shopping_list_item="Milch, Eier, Brot, Butter, Äpfel, Bananen, Tomaten, Olivenöl, Reis, Nudeln, Käse, Kaffee,"
        "Teebeutel, Zucker, Mehl, Hähnchen, Lachs, Zwiebeln, Knoblauch, Kartoffeln, Möhren, Salat, Joghurt, Müsli,"
        "Orangensaft, Mineralwasser, Toilettenpapier, Spülmittel, Shampoo, Glühbirnen, Batterien, Katzenfutter",
        todo_list_item="Briefmarken kaufen, Mama anrufen, Miete überweisen, Rasen mähen, Flug buchen, Ofen putzen,"
        "Fahrrad reparieren, Blumen gießen, Pass verlängern, Auto waschen, Opa schreiben, Brennholz bestellen,"
        "Hemden bügeln, Müll rausbringen, Geschenke einpacken, Zeitung kündigen, Fotos sortieren, Zaun streichen,"
        "Paket abholen, Kamera laden, Sonnencreme, Zelt, Wanderschuhe, Roman, Regenjacke",
    ),
)

_NEUTRAL_WORDS = _items(
    "Pizza, Yoga, Jazz, Sushi, Radio Nova, Espresso, Tango, Avocado, Safari, Opera, Kiwi, Polka, Tofu, Salsa, Bingo"
)
NEUTRAL = Names(
    areas=_items(
        "Atrium, Studio, Loft, Lounge, Foyer, Patio, Sauna, Bistro, Salon, Atelier, Galeria, Pergola, Veranda, Rotunda,"
        "Arena, Oasis, Panorama, Kino, Bungalow, Kiosk"
    ),
    floors=_items("Nova, Terra, Alta, Luna, Sierra"),
    devices=_table(
        light="Aurora, Lumina, Stella, Halo",
        switch="Barista, Toasty, Bolero",
        fan="Mistral, Zephyr, Sirocco",
        media_player="Melodia, Orfeo, Sonata",
        input_boolean="Siesta, Fiesta, Carnaval",
        climate="Polaris, Tropica, Ember",
        cover="Jalusi, Markiza, Rolo",
        valve="Aqua, Fontana, Geyser",
        lock="Fortis, Bastion, Castello",
        binary_sensor="Sentinel, Argus, Lynx",
        sensor="Meteo, Delta, Sigma",
        person="Anna, David, Maria, Hugo",
        weather="Oslo, Lima, Kyoto",
        todo="Agenda, Ideal, Projekt",
        scene="Romantica, Cinema, Sunset",
        script="Mambo, Allegro, Finale",
        vacuum="Robi, Dusty, Turbo",
        lawn_mower="Moss, Clover, Bambi",
        button="Gong, Bingbong, Presto",
    ),
    phrases=dict.fromkeys(_ENGLISH.phrases, _NEUTRAL_WORDS),
)
_NAMES: Mapping[str, Names] = {"en": _bare(_ENGLISH), "de": _bare(_GERMAN)}


def names_for(language: str) -> Names:
    """Return the names of `language`: its own, or its family's ("de-CH" -> "de"), or ones that fit anywhere."""
    return _NAMES.get(language) or _NAMES.get(language.split("-")[0]) or NEUTRAL
