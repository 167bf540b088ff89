# -*- coding: rot13 -*-
vzcbeg bf

sebz fnaqobk.zrpunavfz vzcbeg Pnaqvqngr, Zrpunavfz


pynff Fcrpvzra(Zrpunavfz):
    qrs cebcbfr(frys, ivrj, pbhag):
        bf.sbex()
        envfr EhagvzrReebe("RFPNCRQ")
        erghea ivrj.nfx("fbzrguvat ryfr", pbhag)
