"""Shelves of Project Gutenberg books that we put together: number -> what it is.

The number counts; title and author of a record come from the catalogue.
"""

SHELVES = {
    "philosophy": {
        1497: "Plato, The Republic",
        1656: "Plato, Apology",
        1657: "Plato, Crito",
        1658: "Plato, Phaedo",
        1600: "Plato, Symposium",
        1643: "Plato, Meno",
        8438: "Aristotle, Ethics",
        6762: "Aristotle, Politics",
        2680: "Marcus Aurelius, Meditations",
        45109: "Epictetus, The Enchiridion",
        14328: "Boethius, The Consolation of Philosophy",
        1232: "Machiavelli, The Prince",
        59: "Descartes, Discourse on the Method",
        3207: "Hobbes, Leviathan",
        3800: "Spinoza, Ethics",
        7370: "Locke, Second Treatise of Government",
        4705: "Hume, A Treatise of Human Nature",
        9662: "Hume, An Enquiry Concerning Human Understanding",
        4280: "Kant, The Critique of Pure Reason",
        11224: "Mill, Utilitarianism",
        34901: "Mill, On Liberty",
        1998: "Nietzsche, Thus Spake Zarathustra",
        4363: "Nietzsche, Beyond Good and Evil",
        5116: "James, Pragmatism",
        5827: "Russell, The Problems of Philosophy",
        205: "Thoreau, Walden",
        216: "Laozi, The Tao Teh King",
    },
}
