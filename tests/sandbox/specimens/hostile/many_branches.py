"""A function with more ways through it than anybody can follow."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        words = "x"
        if len(view.trace) == 0:
            words = "0"
        if len(view.trace) == 1:
            words = "1"
        if len(view.trace) == 2:
            words = "2"
        if len(view.trace) == 3:
            words = "3"
        if len(view.trace) == 4:
            words = "4"
        if len(view.trace) == 5:
            words = "5"
        if len(view.trace) == 6:
            words = "6"
        if len(view.trace) == 7:
            words = "7"
        if len(view.trace) == 8:
            words = "8"
        if len(view.trace) == 9:
            words = "9"
        if len(view.trace) == 10:
            words = "10"
        if len(view.trace) == 11:
            words = "11"
        if len(view.trace) == 12:
            words = "12"
        if len(view.trace) == 13:
            words = "13"
        if len(view.trace) == 14:
            words = "14"
        if len(view.trace) == 15:
            words = "15"
        if len(view.trace) == 16:
            words = "16"
        if len(view.trace) == 17:
            words = "17"
        if len(view.trace) == 18:
            words = "18"
        if len(view.trace) == 19:
            words = "19"
        if len(view.trace) == 20:
            words = "20"
        if len(view.trace) == 21:
            words = "21"
        if len(view.trace) == 22:
            words = "22"
        if len(view.trace) == 23:
            words = "23"
        if len(view.trace) == 24:
            words = "24"
        if len(view.trace) == 25:
            words = "25"
        if len(view.trace) == 26:
            words = "26"
        if len(view.trace) == 27:
            words = "27"
        if len(view.trace) == 28:
            words = "28"
        if len(view.trace) == 29:
            words = "29"
        if len(view.trace) == 30:
            words = "30"
        if len(view.trace) == 31:
            words = "31"
        if len(view.trace) == 32:
            words = "32"
        if len(view.trace) == 33:
            words = "33"
        if len(view.trace) == 34:
            words = "34"
        if len(view.trace) == 35:
            words = "35"
        if len(view.trace) == 36:
            words = "36"
        if len(view.trace) == 37:
            words = "37"
        if len(view.trace) == 38:
            words = "38"
        if len(view.trace) == 39:
            words = "39"
        if len(view.trace) == 40:
            words = "40"
        if len(view.trace) == 41:
            words = "41"
        if len(view.trace) == 42:
            words = "42"
        if len(view.trace) == 43:
            words = "43"
        if len(view.trace) == 44:
            words = "44"
        if len(view.trace) == 45:
            words = "45"
        if len(view.trace) == 46:
            words = "46"
        if len(view.trace) == 47:
            words = "47"
        if len(view.trace) == 48:
            words = "48"
        if len(view.trace) == 49:
            words = "49"
        if len(view.trace) == 50:
            words = "50"
        if len(view.trace) == 51:
            words = "51"
        if len(view.trace) == 52:
            words = "52"
        if len(view.trace) == 53:
            words = "53"
        if len(view.trace) == 54:
            words = "54"
        if len(view.trace) == 55:
            words = "55"
        if len(view.trace) == 56:
            words = "56"
        if len(view.trace) == 57:
            words = "57"
        if len(view.trace) == 58:
            words = "58"
        if len(view.trace) == 59:
            words = "59"
        return view.ask(words, count)
