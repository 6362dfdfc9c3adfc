import FakeRig
import Foundation
import GPUTelemetry
import Testing
import WireJSON

/// The real libpci, libdrm, amdgpu and NVML code on made-up machines.
@Suite(.serialized)
struct InventoryTests {
    static func mixedRig(seed: UInt64) -> [FakeCard] {
        var generator = SplitMix64(seed: seed)
        let radeons = FakeCard.rig(.rx580, count: 12, firstBus: 2, shuffledBy: &generator)
        let geforces = FakeCard.rig(.gtx1660, count: 8, firstBus: 0x20, shuffledBy: &generator)
        return radeons + geforces
    }

    @Test(arguments: [1, 2, 3])
    func cardsAreNumberedByAddressWhateverTheOrderOfDriversIs(seed: UInt64) throws {
        let cards = Self.mixedRig(seed: seed)
        let listed = try Probe(FakeRig(cards)).inventory()
        #expect(listed.cards.count == 20)
        for (number, (card, facts)) in zip(cards, listed.cards).enumerated() {
            #expect(facts["gpu_id"]?.intValue == Int64(number))
            #expect(facts["pci"]?.stringValue == card.address)
            #expect(facts["pcie_width"]?.intValue == 1)
            #expect(facts["pcie_width_max"]?.intValue == 16)
            #expect(facts["degraded"] == nil)
            if card.kind == .rx580 {
                #expect(facts["render_node"]?.stringValue == "/dev/dri/renderD\(card.renderMinor)")
                #expect(facts["driver"]?.stringValue == "amdgpu")
                #expect(facts["driver_version"]?.stringValue == "3.54.0")
                #expect(facts["vram_total_bytes"]?.intValue == 8_589_934_592)
                #expect(facts["temp_critical_c"]?.doubleValue == 94)
                #expect(facts["card"]?.stringValue?.contains("RX 580") == true)
            } else {
                #expect(facts["uuid"]?.stringValue == card.uuid)
                #expect(facts["driver_version"]?.stringValue == "535.183.01")
                #expect(facts["temp_critical_c"]?.doubleValue == 95)
                #expect(facts["temp_emergency_c"]?.doubleValue == 98)
                #expect(facts["card"]?.stringValue == "NVIDIA GeForce GTX 1660 (fake)")
            }
        }
    }

    @Test func pinsAndExclusionsDecideWhichCardHasWhichNumber() throws {
        let cards = Self.mixedRig(seed: 4)
        let rig = try FakeRig(cards)
        let listed = try Probe(rig).inventory([
            "GPU_PINS": "0=\(cards[5].address),3=\(cards[13].uuid),7=0000:77:00.0",
            "GPU_EXCLUDE": "integrated,\(cards[0].address)",
        ])
        func address(_ number: Int64) -> String? {
            listed.cards.first { $0["gpu_id"]?.intValue == number }?["pci"]?.stringValue
        }
        #expect(address(0) == cards[5].address)
        #expect(address(1) == cards[1].address)
        #expect(address(3) == cards[13].address)
        // The card that 7 is pinned to is not there: its number stays free.
        #expect(address(7) == nil)
        #expect(address(8) != nil)
        #expect(listed.cards.count == 19)
        #expect(listed.leftOut.map { $0["pci"]?.stringValue } == [cards[0].address])
    }

    @Test func integratedGraphicsIsLeftOutUnlessAskedFor() throws {
        let cards = [
            FakeCard(.intel, at: "0000:00:02.0", cardNumber: 0, hwmonNumber: 0),
            FakeCard(.rx580, at: "0000:01:00.0", cardNumber: 1, hwmonNumber: 1),
            FakeCard(.gtx1060, at: "0000:02:00.0", cardNumber: 2, hwmonNumber: 2),
        ]
        let probe = try Probe(FakeRig(cards))
        let standard = try probe.inventory(["GPU_EXCLUDE": "integrated"])
        #expect(standard.cards.map { $0["pci"]?.stringValue } == ["0000:01:00.0", "0000:02:00.0"])
        #expect(standard.leftOut.first?["reason"]?.stringValue?.contains("integrated") == true)
        #expect(try probe.inventory(["GPU_EXCLUDE": ""]).cards.count == 3)
        #expect(try probe.inventory(["GPU_EXCLUDE": "display"]).cards.count == 2)
    }

    @Test func runtimesAreThoseThatCanWork() throws {
        var radeons = [
            FakeCard(.rx580, at: "0000:01:00.0", cardNumber: 1, hwmonNumber: 1),
            FakeCard(.rx580, at: "0000:02:00.0", cardNumber: 0, hwmonNumber: 0),
        ]
        radeons[1].hasKFD = true
        let geforce = FakeCard(.gtx1660, at: "0000:03:00.0", cardNumber: 2, hwmonNumber: 2)
        let rig = try FakeRig(radeons + [geforce])
        try rig.install("etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1")
        try rig.install("etc/OpenCL/vendors/amdocl64.icd", "libamdocl64.so")
        try rig.install("usr/share/vulkan/icd.d/radeon_icd.x86_64.json", "{}")
        try rig.install("etc/ld.so.cache", "libcuda.so.1\0")
        let runtimes = try Probe(rig).inventory().cards.map { card in
            card["runtimes"]?.arrayValue?.compactMap(\.stringValue) ?? []
        }
        #expect(runtimes == [["vulkan"], ["rocm", "opencl", "vulkan"], ["cuda", "opencl"]])
    }

    @Test func aSickCardKeepsItsNumber() throws {
        var cards = Self.mixedRig(seed: 5)
        cards[1].driver = nil
        let rig = try FakeRig(cards)
        try rig.answer(cards[2], "errno", "5")
        try rig.set(cards[3], "power/runtime_status", "suspended")
        try rig.nvml(cards[12], "return", "15")
        let listed = try Probe(rig).inventory().cards
        #expect(listed.count == 20)
        func degraded(_ number: Int) -> String {
            listed[number]["degraded"]?.arrayValue?.compactMap(\.stringValue).joined() ?? ""
        }
        #expect(degraded(0) == "")
        #expect(degraded(1).contains("no kernel driver"))
        #expect(degraded(2).contains("EIO"))
        #expect(degraded(3).contains("asleep"))
        #expect(degraded(12).contains("GPU is lost"))
        #expect(listed[12]["runtimes"]?.arrayValue == [])
    }

    @Test(arguments: [FakeLibraries.NVML.old, .foreign, .missing])
    func anotherReleaseOfNVMLIsNoReasonToFail(release: FakeLibraries.NVML) throws {
        let listed = try Probe(FakeRig(Self.mixedRig(seed: 6), nvml: release)).inventory().cards
        #expect(listed.count == 20)
        let degraded = listed[12]["degraded"]?.arrayValue?.compactMap(\.stringValue).joined() ?? ""
        #expect(degraded.isEmpty == (release == .old))
    }

    @Test func everyErrorCodeOfNVMLAtTheStartIsTold() throws {
        let card = FakeCard(.gtx1660, at: "0000:03:00.0", cardNumber: 0, hwmonNumber: 0)
        let rig = try FakeRig([card])
        let probe = Probe(rig)
        for code in Array(1...28) + [999] {
            try rig.nvml(nil, "init_return", "\(code)")
            let facts = try #require(try probe.inventory().cards.first)
            let degraded = facts["degraded"]?.arrayValue?.compactMap(\.stringValue).joined() ?? ""
            #expect(degraded.contains("(NVML \(code))"))
            #expect(facts["pci"]?.stringValue == card.address)
        }
    }

    @Test func aNumberBeyondTheCardsIsRefusedWithThoseThatThereAre() throws {
        let probe = try Probe(FakeRig([FakeCard(.rx580, at: "0000:03:00.0", cardNumber: 0, hwmonNumber: 0)]))
        let result = try probe.run(["env", "1"])
        #expect(result.status == 66)
        #expect(result.errors.contains("no card 1: this machine has 0;"))
        let pinned = try probe.run(["env", "1"], ["GPU_PINS": "1=0000:09:00.0"])
        #expect(pinned.errors.contains("pinned to 0000:09:00.0"))
    }

    @Test func malformedPinsAreRefused() {
        #expect(throws: InventoryError.malformedPin("x")) { try InventoryRules(pins: ["x"], exclude: []) }
        #expect(throws: InventoryError.malformedPin("-1=01:00.0")) {
            try InventoryRules(pins: ["-1=01:00.0"], exclude: [])
        }
        #expect(throws: InventoryError.repeatedPin("2=01:00.0")) {
            try InventoryRules(pins: ["1=01:00.0", "2=01:00.0"], exclude: [])
        }
        #expect(throws: InventoryError.malformedExclusion("?")) { try InventoryRules(pins: [], exclude: ["?"]) }
    }

    @Test func environmentNamesExactlyTheCard() throws {
        var cards = Self.mixedRig(seed: 7)
        for index in [1, 4, 9] { cards[index].hasKFD = true }
        let rig = try FakeRig(cards)
        try rig.install("etc/ld.so.cache", "libcuda.so.1\0")
        let probe = Probe(rig)
        for (number, card) in cards.enumerated() {
            let environment = try probe.environment(of: number)
            #expect(environment["GPU_PCI_ADDRESS"] == card.address)
            if card.kind == .gtx1660 {
                #expect(environment["CUDA_VISIBLE_DEVICES"] == card.uuid)
                #expect(environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID")
                continue
            }
            let tag = card.address.replacing(":", with: "_").replacing(".", with: "_")
            #expect(environment["DRI_PRIME"] == "pci-\(tag)")
            #expect(environment["GPU_RENDER_NODE"] == "/dev/dri/renderD\(card.renderMinor)")
            #expect(environment["ROCR_VISIBLE_DEVICES"] == ([1, 4, 9].firstIndex(of: number).map(String.init) ?? ""))
            #expect(environment["CUDA_VISIBLE_DEVICES"] == nil)
        }
        let policy = try probe.run(["policy", "4"]).output
        #expect(policy.contains("DevicePolicy=closed"))
        #expect(policy.contains("DeviceAllow=/dev/dri/renderD\(cards[4].renderMinor) rw"))
        #expect(policy.contains("DeviceAllow=/dev/kfd rw"))
    }

    @Test func theTableShowsEveryCard() throws {
        let cards = Self.mixedRig(seed: 8)
        let table = try Probe(FakeRig(cards)).run(["list"]).output
        for card in cards { #expect(table.contains(card.address)) }
        #expect(table.contains("8 GiB"))
        #expect(table.contains("x1 of x16"))
        let none = try Probe(FakeRig([])).run(["list"]).output
        #expect(none.contains("no graphics card"))
    }
}
