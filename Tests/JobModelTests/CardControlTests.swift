import Testing
import WireJSON

import JobModel

@Suite("Control record of a card") struct CardControlTests {
    private func control() throws -> CardControl {
        CardControl(gpu: try #require(GPUID("3")), op: try #require(OperationID("o1")))
    }

    @Test func itSurvivesTheWire() throws {
        var control = try control()
        #expect(control.isEmpty)
        #expect(try CardControl(parsing: control.encoded()) == control)
        control.cordon = CardControl.Cordon(reason: "new fan", since: 1_700_000_000.5)
        control.drain = CardControl.Drain(reason: "new fan", delay: .seconds(300), deadline: 1_700_000_300.5)
        control.quarantine = CardControl.Quarantine(
            kind: .failures,
            reason: "3 jobs failed on it alone",
            evidence: "a, b, c",
            since: 1_700_000_000,
            strikes: 2,
            pause: .seconds(60)
        )
        control.probation = CardControl.Probation(since: 1_700_000_000, strikes: 1)
        #expect(try CardControl(parsing: control.encoded()) == control)
        #expect(!control.isEmpty)
        control.drain?.delay = nil
        #expect(try CardControl(parsing: control.encoded()).drain?.delay == nil, "it waits for ever")
    }

    @Test func whatANewerVersionAddedIsKept() throws {
        let bytes = Array(#"{"gpu_id":3,"op":"o1","lent":{"to":"x"},"cordon":{"reason":"r","since":1}}"#.utf8)
        var control = try CardControl(parsing: bytes)
        control.cordon = nil
        let again = try JSON(parsing: control.encoded())
        #expect(again["lent"] == ["to": "x"])
        #expect(again["cordon"] == nil)
    }

    @Test(arguments: [
        #"{"gpu_id":3}"#, #"{"op":"o"}"#, #"{"gpu_id":3,"op":"o","cordon":"yes"}"#, #"{"v":2,"gpu_id":3,"op":"o"}"#,
        #"{"gpu_id":3,"op":"o","drain":{"delay":-1}}"#, #"{"gpu_id":3,"op":"o","drain":{"delay":"long"}}"#,
        #"{"gpu_id":3,"op":"o","quarantine":{"kind":"mood","strikes":1}}"#,
        #"{"gpu_id":3,"op":"o","quarantine":{"kind":"health"}}"#, #"{"gpu_id":3,"op":"o","probation":{"strikes":-1}}"#,
        "[]", "",
    ])
    func whatIsNoneIsRefused(body: String) {
        let error = #expect(throws: MalformedMessage.self) { try CardControl(parsing: Array(body.utf8)) }
        #expect(error?.description.contains("control record of a card") == true)
    }

    @Test func itStandsWithTheOtherControlRecords() throws {
        let names = PoolNames(subjectPrefix: "p.")
        #expect(names.cardControl(try #require(GPUID("rig1-3"))) == "p.gpu.ctl.card-rig1-3")
    }
}

@Suite("Readings of a card") struct CardReadingTests {
    private func reading(_ fields: String) throws -> CardReading {
        try CardReading(parsing: Array(#"{"gpu_id":0,"incarnation":"i",\#(fields)}"#.utf8))
    }

    @Test func holdsAndSignsOfSicknessAreRead() throws {
        let reading = try reading(
            #"""
            "hold":{"code":"overheated","reason":"91 C"},"temp_limit_c":68,"health":[
            {"reason":"lost","evidence":"NVML 15","severity":"quarantine"},{"reason":"new","severity":"strange"},{},7]
            """#
        )
        #expect(reading.hold == CardHold(.overheated, reason: "91 C"))
        #expect(reading.temperatureLimit == 68)
        #expect(
            reading.health == [
                CardReading.Sign(reason: "lost", evidence: "NVML 15", severity: .quarantine),
                CardReading.Sign(reason: "new", evidence: "", severity: .notice),
            ]
        )
    }

    @Test func impossibleValuesCountAsNotRead() throws {
        let reading = try reading(#""temp_c":511,"gpu_busy_percent":-1,"power_w":1e9,"vram_used_bytes":"all""#)
        #expect(
            reading
                == CardReading(gpu: reading.gpu, incarnation: reading.incarnation, busyPercent: nil, temperature: nil)
        )
    }
}
