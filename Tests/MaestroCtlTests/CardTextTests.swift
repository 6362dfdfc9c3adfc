import JobTransport
import Testing
import WireJSON

@testable import MaestroCtl

@Suite("Cards as people see them")
struct CardTextTests {
    private let plain = Paint(isOn: false)

    private func card(_ id: JSON = "rig1-11", _ fields: JSONObject = JSONObject()) throws -> CardView {
        var row: JSONObject = [
            "gpu_id": id, "state": "quarantined", "reason": "quarantined: gone, its PCI device directory is gone",
            "model": "Ellesmere [Radeon RX 470/480/570/570X/580/580X/590]", "busy_percent": 100, "temp_c": 101.5,
            "temp_limit_c": 110, "power_w": 245.4, "vram_used_bytes": .int(8_589_934_592),
            "vram_total_bytes": .int(25_769_803_776), "state_age": 792_000, "slots": 1,
            "running": ["01jd2v8k5m3q9x7wd1r2s3t4u5"],
        ]
        for field in fields { row[field.key] = field.value }
        return try #require(CardView(.object(row)))
    }

    @Test func theWidestRowFitsEightyColumns() throws {
        for line in CardText.table([try card()]).lines(width: 80, paint: plain) { #expect(line.count <= 80, "\(line)") }
    }

    @Test func aRowTellsWhatIsKnownAndADashForTheRest() throws {
        let bare = try #require(CardView(["gpu_id": 3, "state": "gone", "slots": 1]))
        let line = CardText.table([bare]).lines(width: 80, paint: plain)[1]
        #expect(line.split(separator: " ") == ["3", "-", "gone", "-", "-", "-", "-", "-"])
        let known = try card(4, ["temp_c": 67, "temp_limit_c": 78, "vram_used_bytes": .int(1 << 30)])
        let text = CardText.table([known]).lines(width: 120, paint: plain)[1]
        #expect(text.contains("67/78°C"))
        #expect(text.contains("1.0/24G"))
        #expect(text.hasSuffix("01jd2v8k5m3q9x7wd1r2s3t4u5"))
    }

    @Test func theReasonsOfThoseThatGetNoJobFollow() throws {
        let up = try card(0, ["state": "up", "reason": ""])
        #expect(
            CardText.reasons([up, try card(1)]) == ["card 1 quarantined: gone, its PCI device directory is gone"]
        )
    }

    @Test(arguments: [
        ("NVIDIA GeForce GTX 1660", "GTX 1660"), ("Ellesmere [Radeon RX 580]", "RX 580"), ("Radeon", "Radeon"),
        ("Intel HD Graphics 630", "HD Graphics 630"), ("odd ] name [", "odd ] name ["),
    ])
    func modelsAreToldShortly(_ model: String, _ short: String) {
        #expect(CardText.shortModel(model) == short)
    }

    @Test func aPlotShowsHowAValueWent() throws {
        let plot = try #require(Sparkline([40, nil, 50, 60, 47], width: 40))
        #expect(plot.text == "▁ ▅█▃")
        #expect(plot.lowest == 40 && plot.highest == 60)
        #expect(try #require(Sparkline([5, 5], width: 40)).text == "▁▁")
        #expect(Sparkline([nil, nil], width: 40) == nil)
        let narrow = try #require(Sparkline((0..<120).map(Double.init), width: 10))
        #expect(narrow.text.count == 10)
        #expect(narrow.text.hasSuffix("█"))
    }

    @Test func everythingAboutACardIsToldLineByLine() throws {
        let history: JSON = [
            ["age": 10, "temp_c": 60, "busy_percent": 0], ["age": 5, "temp_c": 70, "busy_percent": 100],
        ]
        let evidence: JSON = ["kind": "health", "evidence": "NVML 15: GPU is lost", "since": 1_700_000_000]
        let facts: JSONObject = [
            "pci": "0000:03:00.0", "vram_total_bytes": .int(8_589_934_592), "runtimes": ["rocm", "opencl"],
            "core_clock_max_hz": 1_366_000_000, "temp_critical_c": 94, "pcie_width_max": 16, "pcie_speed_gts_max": 8,
        ]
        let shown = CardDetails(card: try card(2, ["history": history, "quarantine": evidence]), facts: facts)
            .lines(width: 80, paint: plain)
        let text = shown.joined(separator: "\n")
        for part in [
            "NVML 15: GPU is lost", "0000:03:00.0", "vram total      8.0 GiB", "rocm opencl", "60 to 70 °C",
            "0 to 100 %", "the last 10.0s", "core clock max  1366 MHz", "temp critical   94 °C", "pcie width max  x16",
            "pcie speed max  8 GT/s", "quarantine      health; NVML 15: GPU is lost; since 2023-11-14T22:13:20.000Z",
        ] {
            #expect(text.contains(part), "\(part)")
        }
        #expect(!text.contains("power  "), "nothing was read of it")
    }

    @Test func withoutAMaestroTheFactsAreLeft() {
        let shown = CardDetails(card: nil, facts: ["pci": "0000:03:00.0"]).lines(width: 80, paint: plain)
        #expect(shown == ["pci             0000:03:00.0"])
    }

    @Test func whatIsLongGoesOnBelow() throws {
        let quarantine: JSON = [
            "kind": "operator", "reason": .string(String(repeating: "word ", count: 30)), "evidence": "", "pause": 30,
        ]
        let shown = CardDetails(card: try card(2, ["quarantine": quarantine]), facts: nil)
            .lines(width: 80, paint: plain)
        #expect(shown.allSatisfy { $0.count <= 80 })
        let text = shown.joined(separator: " ").split(separator: " ").joined(separator: " ")
        #expect(text.contains("quarantine operator; word word"))
        #expect(!text.contains("pause"), "nobody probes it")
    }
}
