import FakeRig
import Foundation
import Testing

@testable import GPUTelemetry

struct ValueTests {
    @Test func addressesAreReadInEveryForm() throws {
        for text in ["0000:0a:00.1", "0a:00.1", "00000000:0A:00.1", "0:a:0.1"] {
            #expect(try #require(PCIAddress(text)).description == "0000:0a:00.1")
        }
        #expect(try #require(PCIAddress("0001:0a:1f.7")).mesaTag == "pci-0001_0a_1f_7")
        for text in [
            "", "0a", "0a:00", "0a:00.8", "0a:20.0", "0000:0a:00.1.2", "x:0a:00.0", "+1:0a:00.0", "0a:00.", "::.",
        ] {
            #expect(PCIAddress(text) == nil, "\(text)")
        }
        let (low, high) = (try #require(PCIAddress("0000:ff:00.0")), try #require(PCIAddress("0001:00:00.0")))
        #expect(low < high)
    }

    @Test func selectorsAreAddressesOrUUIDs() {
        #expect(CardSelector("0000:01:00.0") == PCIAddress("01:00.0").map { .address($0) })
        #expect(CardSelector("GPU-1111-2222") == .uuid("GPU-1111-2222"))
        for text in ["", "0", "7", "GPU 1", "../../x", String(repeating: "a", count: 81)] {
            #expect(CardSelector(text) == nil, "\(text)")
        }
    }

    @Test func linkSpeedsAreRead() {
        #expect(PCIeSpeed.parse("8.0 GT/s PCIe") == 8)
        #expect(PCIeSpeed.parse("2.5 GT/s") == 2.5)
        #expect(PCIeSpeed.parse("Unknown") == nil)
        #expect(PCIeSpeed.parse("nan GT/s") == nil)
    }

    @Test func whatTheNVIDIAModuleTellsIsRead() {
        let text = "Model: \t\t NVIDIA GeForce GTX 1660\nGPU UUID: \t GPU-1-2-3\nDevice Minor: \t 4\n"
        let told = NVIDIAModuleInformation(parsing: Array(text.utf8))
        #expect(told.uuid == "GPU-1-2-3" && told.minor == 4)
        let unused = NVIDIAModuleInformation(parsing: Array("GPU UUID: GPU-????????-????\nnonsense\n".utf8))
        #expect(unused.uuid == nil && unused.minor == nil)
    }

    @Test func fdinfoIsReadWithItsUnits() throws {
        let text = """
            pos:	0
            drm-driver:	amdgpu
            drm-pdev:	0000:03:00.0
            drm-client-id:	17
            drm-engine-gfx:	1500000000 ns
            drm-engine-compute:	500000000 ns
            drm-engine-capacity-gfx:	2
            drm-memory-vram:	2048 KiB
            drm-resident-vram:	2 MiB
            """
        let client = try #require(DRMClient(parsing: Array(text.utf8)))
        #expect(client.address == PCIAddress("0000:03:00.0"))
        #expect(client.id == 17)
        #expect(client.engineNanoseconds == 2_000_000_000)
        #expect(client.vram == 2 << 20)
        #expect(DRMClient(parsing: Array("pos:\t0\nflags:\t02\n".utf8)) == nil)
        let odd = try #require(DRMClient(parsing: Array("drm-memory-vram: 5 parsecs\ndrm-client-id: x\n".utf8)))
        #expect(odd.vram == nil && odd.id == nil)
    }

    @Test func descriptorsOfOneClientCountOnce() throws {
        let proc = FileManager.default.temporaryDirectory.appending(path: "maestro-proc-\(UUID().uuidString)")
        defer { #expect(throws: Never.self) { try FileManager.default.removeItem(at: proc) } }
        func open(_ pid: Int, _ descriptor: Int, _ node: String, _ client: Int, _ address: String) throws {
            for directory in ["fd", "fdinfo"] {
                try FileManager.default.createDirectory(
                    at: proc.appending(path: "\(pid)/\(directory)"),
                    withIntermediateDirectories: true
                )
            }
            try FileManager.default.createSymbolicLink(
                atPath: proc.appending(path: "\(pid)/fd/\(descriptor)").path,
                withDestinationPath: "/dev/dri/\(node)"
            )
            let text =
                "drm-pdev: \(address)\ndrm-client-id: \(client)\ndrm-engine-gfx: 1000000000 ns\ndrm-memory-vram: 1 MiB\n"
            try Data(text.utf8).write(to: proc.appending(path: "\(pid)/fdinfo/\(descriptor)"))
        }
        try open(100, 3, "renderD128", 1, "0000:03:00.0")
        try open(100, 4, "renderD128", 1, "0000:03:00.0")
        try open(100, 5, "renderD128", 2, "0000:03:00.0")
        try open(100, 6, "renderD129", 3, "0000:04:00.0")
        try open(101, 3, "renderD128", 1, "0000:03:00.0")
        let address = try #require(PCIAddress("0000:03:00.0"))
        let reader = FDInfoReader(paths: SystemPaths(proc: proc.path), address: address)
        let usage = reader.usage(of: [100, 101, 102])
        #expect(
            usage == [
                ProcessUsage(pid: 100, gpuSeconds: 2, vram: 2 << 20),
                // It has inherited its parent's client, which is counted there.
                ProcessUsage(pid: 101, gpuSeconds: nil, vram: nil),
            ]
        )
    }

    @Test func conflictsAreToldAndReplaced() throws {
        let asked = [
            "CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "1", "PATH": "/bin", "POCL_DEVICES": "pthread",
        ]
        let binding = CardBinding.processor
        let conflicts = binding.conflicts(in: asked)
        #expect(conflicts.map(\.name) == ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"])
        #expect(conflicts[0].description.contains("set to \"\""))
        #expect(conflicts[1].description.contains("removed"))
        #expect(binding.governs("HIP_VISIBLE_DEVICES") && binding.governs("POCL_DEVICES"))
        #expect(!binding.governs("PATH"))
    }

    /// A lane that is closed while a read hangs gives everything back when the read returns.
    @Test func aClosedLaneReadsNothing() async {
        let lane = SensorLane(readDeadline: .milliseconds(50))
        let sensor = Sensor("x") { () throws(SensorFault) in 7 }
        await lane.sweep([sensor])
        #expect(sensor.reading(at: .now, maximumAge: .seconds(60)).fresh == 7)
        lane.close()
        await lane.sweep([sensor])
        #expect(sensor.reading(at: .now, maximumAge: .seconds(60)).fault == .timedOut)
    }
}
