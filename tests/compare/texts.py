"""Texts on which tokenizers disagree: ten scripts, code, numbers, emoji, runs of spaces."""

from __future__ import annotations

SCRIPTS = {
    "latin": "The lighthouse keeper counts nine ships, and isn't sure of the tenth.",
    "accented": "Où est passée la clé? Größe, señor, łódź, İstanbul, naïve, Ærø.",
    "cyrillic": "Старый мост через реку открыт каждый день до шести часов.",
    "greek": "Η θάλασσα είναι ήρεμη σήμερα το πρωί.",
    "arabic": "يقرأ الطالب كتابا جديدا كل أسبوع.",
    "hebrew": "הרכבת יוצאת בשעה שבע בבוקר.",
    "persian": "می‌خواهم کتاب‌ها را ببینم.",
    "devanagari": "नदी के किनारे एक छोटा गाँव है।",
    "thai": "วันนี้อากาศดีมากที่ตลาดริมน้ำ",
    "chinese": "他们在图书馆里安静地读书，窗外下着雨。",
    "japanese": "港の近くで新しいカフェを見つけました。",
    "korean": "아침마다 공원에서 달리기를 합니다.",
    "tamil": "மழை பெய்யும் போது குழந்தைகள் விளையாடுகிறார்கள்.",
}
SHAPES = {
    "code": "def area(width, height):\n    # in metres\n\treturn width*height\n\n\nprint(area(2,3))\n",
    "numbers": "In 1984 it cost 12345678.90, i.e. 1,000,000 times 7e-3; call 0049-30-123456.",
    "list": "1. one\n2. two\n\n3. three\n10. ten\n\n\n11. eleven",
    "emoji": "😀 fine 👨‍👩‍👧‍👦 family 🇫🇷 flag 👍🏽 skin ❤️",
    "spaces": "  two before, three   inside, and a tail   ",
    "blank lines": "a\n\n\n b\n \n\tc\t\td\r\ne",
    "leading space": " hello",
    "leading newline": "\nhello",
    "one space": " ",
    "contractions": "I'm sure they'LL say it's WE'VE, y'all'd've",
    "punctuation": '(a) [b] {c} <d> "e" -- ... !? @#$%^&*_+=|\\/~`',
    "odd spaces": "no break, wide　space, thin space, zero\u200bwidth, soft­hyphen",
    "composed": "café and café, ﬁne, ①, ＡＢ",
    "empty": "",
}
TEXTS = {**SCRIPTS, **SHAPES}
"""Each by name."""
