import FakeRig
import Foundation
import Testing
import WireJSON

/// gpu-worker itself on made-up machines, as far as it needs no server.
@Suite(.serialized)
struct WorkerCardTests {
    private static let cards = [
        FakeCard(.rx580, at: "0000:01:00.0", cardNumber: 3, hwmonNumber: 9),
        FakeCard(.gtx1060, at: "0000:02:00.0", cardNumber: 2, hwmonNumber: 2),
        FakeCard(.intel, at: "0000:00:02.0", cardNumber: 0, hwmonNumber: 0),
    ]

    private func worker() throws -> Probe { try Probe(FakeRig(Self.cards), program: "gpu-worker") }

    @Test func listShowsTheCardsWithoutAServer() throws {
        let listed = try worker().json(["--list", "--json"])
        let cards = listed["cards"]?.arrayValue ?? []
        #expect(cards.map { $0["pci"]?.stringValue } == ["0000:01:00.0", "0000:02:00.0"])
        #expect(cards.map { $0["gpu_id"]?.intValue } == [0, 1])
        #expect(listed["left_out"]?.arrayValue?.first?["pci"]?.stringValue == "0000:00:02.0")
        let pinned = try worker().json(["--list", "--json"], ["GPU_PINS": "1=0000:01:00.0", "GPU_EXCLUDE": "display"])
        #expect(pinned["cards"]?.arrayValue?.map { $0["pci"]?.stringValue } == ["0000:02:00.0", "0000:01:00.0"])
        #expect(try worker().run(["--list"]).output.contains("left out: 0000:00:02.0"))
    }

    @Test func thePolicyWallsAUnitToItsCard() throws {
        let radeon = try worker().run(["--print-device-policy", "--gpu", "0"]).output
        #expect(radeon.contains("DeviceAllow=/dev/dri/renderD131 rw"))
        #expect(!radeon.contains("nvidia"))
        let geforce = try worker().run(["--print-device-policy", "--gpu", "1"]).output
        #expect(geforce.contains("DeviceAllow=/dev/nvidia2 rw"))
        #expect(geforce.contains("DeviceAllow=/dev/nvidiactl rw"))
    }

    /// 78 stops systemd from starting it for ever.
    @Test func aNumberBeyondTheCardsEndsWithTheCodeOfAWrongConfiguration() throws {
        let rig = try FakeRig(Self.cards)
        let result = try Probe(rig, program: "gpu-worker").run(
            [],
            ["GPU_ID": "2", "MERGE_ROOT": rig.root.path, "LOG_ROOT": rig.root.path]
        )
        #expect(result.status == 78)
        #expect(result.errors.contains("there is no card 2: this machine has 0, 1"))
        let malformed = try worker().run(["--list"], ["GPU_PINS": "nonsense"])
        #expect(malformed.status == 78)
        #expect(malformed.errors.contains("GPU_PINS"))
    }
}
